"""The contract between the stages: settings, schemas, feature specs, releases and where artifacts lie."""
