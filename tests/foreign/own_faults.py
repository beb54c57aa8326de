"""Two faults that are not in the package: `ragprof demo --fault-module own_faults.py:FUNCTION`.

Each runs once inside the demo service when the faulty window starts, patches the running service
the way a bad deploy would have changed it, and returns the truth.
"""
