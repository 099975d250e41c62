//! Each version of pytest that is promised, on the oldest and the newest Python that it can use.

use super::sides::{MIXED_TESTS, environments, in_any_order, mixed_lab, run};

fn each_python(version: &str) {
    let homes = environments(&format!("{version}-"));
    for home in &homes {
        let pytest = home.join("bin/pytest").display().to_string();
        let lab = mixed_lab();
        run(
            &lab,
            &[&*pytest, "-v", "-rA", "-p", "no:cacheprovider"],
            &[],
        )
        .expect_code(1)
        .expect_same()
        .expect_tests(MIXED_TESTS);
        run(
            &lab,
            &[&*pytest, "-rA", "-n", "2", "-p", "no:cacheprovider"],
            &[],
        )
        .expect_code(1)
        .expect_same_but(in_any_order)
        .expect_tests(MIXED_TESTS);
    }
    if homes.is_empty() {
        println!("no Python here for pytest {version}");
    }
}

#[test]
fn pytest_6_2_is_what_it_is_without_memwatch() {
    each_python("6.2");
}

#[test]
fn pytest_7_4_is_what_it_is_without_memwatch() {
    each_python("7.4");
}

#[test]
fn pytest_8_4_is_what_it_is_without_memwatch() {
    each_python("8.4");
}

#[test]
fn the_newest_pytest_is_what_it_is_without_memwatch() {
    each_python("9");
}
