"""The use cases. What a port raises passes through them; `Raises` names what they add to that."""
