"""The catalogue of a RAG service's monitoring as data, and what is generated from it."""
