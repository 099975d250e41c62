//! Writes the man pages and the shell completions, from the same definition that the command line is parsed
//! by, into a directory: `man/`, `completions/`. Run by `cargo xtask dist`.

use std::{env, fs, path::Path};

use clap::CommandFactory;
use memwatch::cli::{Cli, complete};

fn main() -> std::io::Result<()> {
    let into = env::args_os().nth(1).expect("the directory to write to");
    let [man, completions] = ["man", "completions"].map(|name| Path::new(&into).join(name));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(Cli::command(), &man)?;
    for (shell, file) in [
        ("bash", "memwatch.bash"),
        ("zsh", "_memwatch"),
        ("fish", "memwatch.fish"),
    ] {
        fs::write(completions.join(file), complete::script(shell)?)?;
    }
    Ok(())
}
