"""The edges: Elasticsearch and files. What does not belong here: Dagster, and any decision about segments."""
