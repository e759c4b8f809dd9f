"""mmi_eval."""
