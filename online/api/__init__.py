"""HTTP: schemas, blueprints and errors."""
