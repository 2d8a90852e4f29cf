"""Everything that crosses a boundary, as types: the form, its catalogue and checks, and the wire structs. No I/O."""
