//! What clients see, sentence by sentence; then the same against a model, at random and with threads.

mod model;
mod seam;
mod semantics;
mod stress;
mod world;
