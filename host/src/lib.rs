//! The gpuhost program as a library.
