"""Reading files: one module for each kind; `services.retriever.extract` chooses between them."""
