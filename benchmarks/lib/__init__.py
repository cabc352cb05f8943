"""What measurements share: contestants, servers, one race, its record, tables and pages."""
