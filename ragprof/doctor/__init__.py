"""The checklists of a deployment and of its reviews, as checks that run."""
