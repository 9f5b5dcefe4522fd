"""The action contract: everything that must agree between data, model and robot before an action means anything."""
