//! Generates Rust from every `.proto` file below `p2psync/`, without a system protoc.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=p2psync");
    let mut files = Vec::new();
    find_protos(Path::new("p2psync"), &mut files)?;
    files.sort();
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(&files)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = compiler.encode_file_descriptor_set();
    fs::write(out.join("p2psync_descriptor.bin"), descriptors)?;
    fs::write(out.join("methods.rs"), methods(&compiler)?)?;
    tonic_prost_build::configure().compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// Returns the methods of all services as an array of Rust, each with its path and whether it has the option `read`.
fn methods(compiler: &protox::Compiler) -> Result<String, Box<dyn Error>> {
    let pool = compiler.descriptor_pool();
    let read = pool.get_extension_by_name("p2psync.v1.read");
    let read = read.ok_or("options.proto does not say what `read` is")?;
    let mut code = String::from("&[\n");
    for service in pool.services() {
        for method in service.methods() {
            let reads = method.options().get_extension(&read).as_bool() == Some(true);
            let path = format!("/{}/{}", service.full_name(), method.name());
            writeln!(code, "    Method {{ path: {path:?}, reads: {reads} }},")?;
        }
    }
    code.push(']');
    Ok(code)
}

fn find_protos(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            find_protos(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
