//! The program `producer`.

fn main() -> std::process::ExitCode {
    correio_producer::program::main()
}
