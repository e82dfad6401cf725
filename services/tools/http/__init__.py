"""Tools that are one HTTP request each, declared in YAML: the entries `http:` (see docs/tools.md).

What a model says may fill in the places that the declaration leaves open and nothing else: never a scheme, a host, the
shape of a path, a header, or who asks. What a server says may lead no further than to the hosts that are listed.
"""

from .entry import open_entry as open_entry
