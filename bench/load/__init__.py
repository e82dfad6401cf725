"""Load on a whole Baton: many connections, questions that come whether or not earlier ones are answered."""
