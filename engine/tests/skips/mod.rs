//! A harness for tests that a machine may be unable to run. The usual one cannot say at run time
//! that a test was skipped: where something is missing, neither passed nor failed is true.

use std::process::ExitCode;

/// A name, and what it runs; `Err` says why it cannot be run here. A failure panics.
pub type Test = (&'static str, fn() -> Result<(), String>);

/// Runs the tests that the arguments of this process name, as the usual harness does.
pub fn run(tests: &[Test]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--list") {
        for (name, _) in tests {
            out(&format!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let filter = arguments.iter().find(|a| !a.starts_with('-'));
    let wanted = |name: &str| filter.is_none_or(|filter| name.contains(filter.as_str()));
    let wanted: Vec<&Test> = tests.iter().filter(|(name, _)| wanted(name)).collect();
    out(&format!("\nrunning {} tests", wanted.len()));
    let (mut passed, mut skipped) = (0, 0);
    for (name, test) in &wanted {
        // A failure ends the process with another code.
        match test() {
            Ok(()) => {
                passed += 1;
                out(&format!("test {name} ... ok"));
            }
            Err(reason) => {
                skipped += 1;
                out(&format!("test {name} ... skipped: {reason}"));
            }
        }
    }
    let filtered = tests.len() - wanted.len();
    out(&format!(
        "\ntest result: ok. {passed} passed; 0 failed; {skipped} skipped; {filtered} filtered out\n"
    ));
    ExitCode::SUCCESS
}

/// A line of the report.
#[allow(clippy::print_stdout, reason = "this is the harness")]
pub fn out(line: &str) {
    println!("{line}");
}
