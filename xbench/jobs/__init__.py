"""The jobs, which build and open each kind of artifact: data, models, predictions, explainers, maps, observations."""
