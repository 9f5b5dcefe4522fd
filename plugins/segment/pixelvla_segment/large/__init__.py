"""Models with weights to download: SAM 2, EdgeTAM, FastSAM and Grounding DINO. Nothing here downloads anything."""
