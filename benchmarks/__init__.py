"""Scripts that measure what README and docs claim; results/ keeps what they printed."""
