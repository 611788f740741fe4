"""Stage 2: search queries to TF-IDF rows."""

import dagster as dg
from pydantic import Field

from segmentation_assets.core import plots
from segmentation_assets.core.sessions import Sessions
from segmentation_assets.core.vectorize import TfidfMatrix, vectorize
from segmentation_assets.defs.metadata import picture, table
from segmentation_assets.defs.resources import SettingsResource
from segmentation_assets.io.settings import with_overrides


class TfidfConfig(dg.Config):
    """What a run may try instead of the settings file; empty means as the file says."""

    method: str | None = Field(None, description="The method these rows are for: 'kmeans' takes plain text.")


@dg.asset(
    group_name="segmentation",
    ins={"raw_sessions": dg.AssetIn(metadata={"columns": ["search_query"]})},
    kinds={"scikitlearn", "python"},
    owners=["team:segmentation"],
    code_version="2",
    description="TF-IDF of the search queries: a row for each distinct query, frequencies counted in sessions.",
)
def tfidf_matrix(config: TfidfConfig, raw_sessions: Sessions, settings: SettingsResource) -> dg.Output[TfidfMatrix]:
    """Vectorize the queries."""
    chosen = with_overrides(settings.load(), **config.model_dump())
    tfidf = vectorize(raw_sessions.table["search_query"], chosen.vectors.for_method(chosen.clusters.method))
    rows, terms = tfidf.matrix.shape
    order = (-tfidf.counts).argsort(kind="stable")[:10]
    return dg.Output(
        tfidf,
        metadata={
            "dagster/row_count": rows,
            "sessions": len(tfidf.query_of_session),
            "distinct_queries": rows,
            "terms": terms,
            "nonzeros_per_query": round(tfidf.matrix.nnz / rows, 2),
            "text": tfidf.settings.text,
            "spellings": len(tfidf.spellings),
            "spellings_sample": table(
                [{"typed": typed, "counted as": meant} for typed, meant in list(tfidf.spellings.items())[:15]],
                {"typed": "string", "counted as": "string"},
            ),
            "queries_without_known_term": int((~tfidf.known).sum()),
            "most_frequent_queries": table(
                [{"query": tfidf.queries[int(i)].as_py(), "sessions": int(tfidf.counts[i])} for i in order],
                {"query": "string", "sessions": "int"},
            ),
            "most_frequent_terms": picture(plots.vocabulary(tfidf), "most frequent terms"),
        },
    )
