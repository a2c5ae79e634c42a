"""How the model that tamis carries is made: base -> trimmed -> trained -> measured -> exported."""
