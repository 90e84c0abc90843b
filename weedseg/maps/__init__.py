"""From a mosaic of the field to maps that a grower acts on: cover, cells, prescriptions, report."""
