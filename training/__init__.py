"""How the model that tamis carries is made: base -> trimmed -> measured -> exported."""
