"""Other ways to score the same pairs, each run by the Python of its own environment.

A contestant reads one JSON object a line from standard input, `{"query": …, "documents": […]}`,
and answers each with `{"seconds": …, "scores": […]}`; its first line, before any request, is
`{"versions": {…}}`. Seconds are its own: from texts to scores, without the pipe.
"""
