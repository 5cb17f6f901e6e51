"""Time, FLOPs and memory of any generator, stage by stage and as whole searches, beside the roofline."""
