"""User segments from the search sessions a shop keeps in Elasticsearch, as a Dagster asset graph."""

__version__ = "0.1.0"
