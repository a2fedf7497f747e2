"""How each kind of artifact is made and opened: data, models, predictions, explainers, maps, observations."""
