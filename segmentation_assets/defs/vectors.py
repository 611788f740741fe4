"""Stage 2: search queries to TF-IDF rows."""

import dagster as dg

from segmentation_assets.core import plots
from segmentation_assets.core.sessions import Sessions
from segmentation_assets.core.vectorize import TfidfMatrix, vectorize
from segmentation_assets.defs.metadata import picture, table
from segmentation_assets.defs.resources import SettingsResource


@dg.asset(
    group_name="segmentation",
    kinds={"scikitlearn", "python"},
    owners=["team:segmentation"],
    code_version="1",
    description="TF-IDF of the search queries: a row for each distinct query, frequencies counted in sessions.",
)
def tfidf_matrix(raw_sessions: Sessions, settings: SettingsResource) -> dg.Output[TfidfMatrix]:
    """Vectorize the queries."""
    tfidf = vectorize(raw_sessions.table["search_query"], settings.load().vectors)
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
            "queries_without_known_term": int((~tfidf.known).sum()),
            "most_frequent_queries": table(
                [{"query": tfidf.queries[int(i)].as_py(), "sessions": int(tfidf.counts[i])} for i in order],
                {"query": "string", "sessions": "int"},
            ),
            "most_frequent_terms": picture(plots.vocabulary(tfidf), "most frequent terms"),
        },
    )
