"""Features to the feature store, the model to the scorer, and the checks over both."""
