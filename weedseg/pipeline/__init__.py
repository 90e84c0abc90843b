"""The pipeline: glue between the stages, around the files of one run folder."""
