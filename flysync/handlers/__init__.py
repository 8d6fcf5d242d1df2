"""
The use cases: the entrances (command line, worker, library) call these and nothing else.

What a port raises passes through them, or stands in their report; `Raises` names what they add to that.
"""
