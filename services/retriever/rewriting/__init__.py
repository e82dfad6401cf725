"""Follow-up questions made to stand alone before the search: by a rule, or by a language model."""
