//! The program `consumer`.

fn main() -> std::process::ExitCode {
    correio_consumer::program::main()
}
