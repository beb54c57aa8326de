"""A real Kubernetes of one node, for the tests of `ragprof attach --pod`.

`build.py` makes the programs and images once, into the cache folder; `node.py` starts and ends a
node in namespaces of its own. Needs root, Debian's apt and Go 1.24.
"""
