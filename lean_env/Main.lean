module
public meta import Check
public meta unsafe def main : IO Unit := Check.serve
