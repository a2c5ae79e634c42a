"""torch, the second library (extra `torch`): the reference, on any device and in any dtype."""
