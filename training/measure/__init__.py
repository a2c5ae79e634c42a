"""Rankings measured: judged sets, languages, keyword traps, int8."""
