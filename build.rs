//! Compiles the crate again when a migration is added: the macro that embeds them sees only those it embedded.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
