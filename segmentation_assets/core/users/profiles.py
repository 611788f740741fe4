"""One user, one profile: everything known and found about a user, side by side.

What belongs here: joining the results into one row a user, and that row as a document. What does not: computing any of
it, publishing it (io).
"""

from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa


@dataclass(frozen=True)
class UserProfiles:
    """The profiles.

    Attributes:
        table: a row a user, sorted by user_id.
        model_version: of the behaviour model.
        segment_model_version: of the model that made the query segments.
        start: first moment of the data window, aware UTC.
        end: last moment.
    """

    table: pa.Table
    model_version: str
    segment_model_version: str
    start: datetime
    end: datetime
