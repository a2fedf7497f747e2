"""The contracts of plugins: datasets, models, explainers and metrics, and the records that pass between them."""
