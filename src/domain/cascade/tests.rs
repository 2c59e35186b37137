//! Confidences, by each measure.
