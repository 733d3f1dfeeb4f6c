"""Pictures: previews, the viewer page, projections of a CT, surfaces."""
