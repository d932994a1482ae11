//! The gpuhost program.
fn main() -> std::process::ExitCode {
    gpuhost::main()
}
