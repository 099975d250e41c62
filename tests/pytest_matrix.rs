//! pytest under memwatch is pytest: each version, runner and plugin that people use prints, decides and ends as
//! without memwatch, and the record has every test. Then suites that leak, and what becomes of the others in
//! them. Needs root, cgroups, and the environments that `cargo xtask pythons` makes.

#[path = "support/lab.rs"]
mod lab;
#[path = "pytest_matrix/sides.rs"]
mod sides;

#[path = "pytest_matrix/bare.rs"]
mod bare;
#[path = "pytest_matrix/lacking.rs"]
mod lacking;
#[path = "pytest_matrix/leaky.rs"]
mod leaky;
#[path = "pytest_matrix/plugins.rs"]
mod plugins;
#[path = "pytest_matrix/real.rs"]
mod real;
#[path = "pytest_matrix/runners.rs"]
mod runners;
#[path = "pytest_matrix/versions.rs"]
mod versions;
