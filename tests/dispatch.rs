//! Which tier runs: what `LEANRESNET_ISA` does, in child processes since it is read once; and what the archives hold.
#![forbid(unsafe_code)]

#[path = "common/program.rs"]
mod program;

use leanresnet::internals::compiled;
use leanresnet::internals::dispatch::Kernels;
use leanresnet::{ErrorKind, Isa};
use program::this_program;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the child process below is asked by.
const CHILD: &str = "child_reports_its_tier";

/// Run by the other tests as a child process: prints the tier in force, or the error.
#[test]
#[ignore = "a child process of the other tests"]
fn child_reports_its_tier() {
    match Kernels::active() {
        Ok(kernels) => {
            assert_eq!(Isa::active().expect("the kernels have one"), kernels.isa);
            println!("tier: {}", kernels.isa);
        }
        Err(error) => {
            assert!(matches!(error, leanresnet::Error::Isa { .. }) && error.kind() == ErrorKind::Usage);
            assert_eq!(Isa::active().expect_err("read once, refused again").to_string(), error.to_string());
            println!("error: {error}");
        }
    }
}

/// The line that the child prints under `LEANRESNET_ISA=value`, or without the variable.
fn report(value: Option<&str>) -> String {
    let mut command = this_program();
    command.args([CHILD, "--exact", "--ignored", "--nocapture"]).env_remove("LEANRESNET_ISA");
    if let Some(value) = value {
        command.env("LEANRESNET_ISA", value);
    }
    let output = command.output().expect("the child runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = |line: &str| ["tier: ", "error: "].iter().find_map(|mark| line.find(mark).map(|at| line[at..].to_string()));
    text.lines().find_map(line).unwrap_or_else(|| panic!("no report in {text}"))
}

#[test]
fn without_the_variable_the_best_tier_is_in_force() {
    assert_eq!(
        report(None),
        format!("tier: {}", Isa::available().filter(|isa| isa.base() == *isa).max().expect("portable at least"))
    );
}

#[test]
fn the_variable_forces_every_available_tier() {
    for isa in Isa::available() {
        assert_eq!(report(Some(isa.name())), format!("tier: {isa}"));
    }
}

#[test]
fn names_that_cannot_run_are_errors_and_never_ignored() {
    let available = Isa::available().map(Isa::name).collect::<Vec<_>>().join(", ");
    let missing = Isa::ALL.into_iter().filter(|isa| !isa.is_available()).map(Isa::name);
    for name in missing.chain(["sse9", "AVX2", "avx2 ", ""]) {
        let expected = format!("error: instruction set `{name}` is not available; expected one of {available}, got `{name}`");
        assert_eq!(report(Some(name)), expected);
    }
}

#[test]
fn tiers_come_with_their_kernels() {
    for isa in Isa::ALL {
        let compiled = compiled().any(|(tier, _)| tier == isa);
        match Kernels::of(isa) {
            Ok(kernels) => {
                assert_eq!(kernels.isa, isa);
                assert!(compiled || isa == Isa::Portable);
                let word = format!("_f32_{}_", isa.base());
                assert!(kernels.f32.dense.name.contains(&word) && kernels.f32.weight_gradient.name.contains(&word), "{isa}");
            }
            Err(error) => assert!(!isa.is_available() && error.to_string().contains(isa.name()), "{error}"),
        }
    }
}

/// The archives of kernels with their tiers.
fn archives() -> Vec<(Isa, PathBuf)> {
    let path = |isa: Isa| (isa, Path::new(env!("OUT_DIR")).join(format!("libleanresnet_{isa}.a")));
    // The model of a tile unit is no code for a processor.
    let is_native = |isa: &Isa| *isa != Isa::Amx || cfg!(not(leanresnet_tile_model));
    Isa::ALL.into_iter().filter(|isa| is_native(isa) && compiled().any(|(tier, _)| tier == *isa)).map(path).collect()
}

/// What a tool of the GNU binutils says about an archive; `None` where there is no such tool (or no Unix archive). That of aarch64 goes by its
/// full name, since the tests may run under emulation.
fn output_of(tool: &str, arguments: &[&str], archive: &Path) -> Option<String> {
    let tool = if cfg!(target_arch = "aarch64") { format!("aarch64-linux-gnu-{tool}") } else { tool.to_string() };
    let output = Command::new(&tool).args(arguments).arg(archive).output().ok().filter(|_| cfg!(target_os = "linux"))?;
    assert!(output.status.success(), "{tool} {}: {}", archive.display(), String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Nothing that another library could clash with, and exactly one symbol per kernel.
#[test]
fn archives_define_the_kernels_and_nothing_else() {
    for (isa, archive) in archives() {
        let Some(text) = output_of("nm", &["-g", "--defined-only"], &archive) else { continue };
        let mut symbols: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
        let version = env!("CARGO_PKG_VERSION").replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let mut expected: Vec<String> =
            compiled().filter(|(tier, _)| *tier == isa).map(|(_, name)| format!("{name}_{version}")).collect();
        symbols.sort_unstable();
        expected.sort_unstable();
        assert_eq!(symbols, expected, "{isa}");
    }
}

/// What a kernel needs from outside would be compiled for another machine, or missing.
#[test]
fn archives_need_no_symbols_but_their_own() {
    for (isa, archive) in archives() {
        let Some(text) = output_of("nm", &["-u"], &archive) else { continue };
        let needed: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("U ")).collect();
        assert!(needed.iter().all(|symbol| ["_GLOBAL_OFFSET_TABLE_", "memset", "memcpy"].contains(symbol)), "{isa}: {needed:?}");
    }
}

/// An AVX2 machine dies of a 512-bit register.
#[test]
fn avx2_kernels_hold_no_instruction_of_avx512() {
    for (_, archive) in archives().into_iter().filter(|(isa, _)| *isa == Isa::Avx2) {
        let Some(text) = output_of("objdump", &["-d", "--no-show-raw-insn"], &archive) else { continue };
        let beyond =
            |line: &&str| line.contains("%zmm") || line.contains("{%k") || line.contains("%xmm16") || line.contains("%ymm16");
        assert!(text.contains("%ymm"), "no disassembly");
        let found: Vec<&str> = text.lines().filter(beyond).take(3).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}

/// A function of an archive: where it stands, and its instructions by address.
struct Disassembled {
    name: String,
    instructions: Vec<(u64, String)>,
}

/// The functions in what `objdump -d` prints; static ones carry the name of their file, since many files have them.
fn functions(text: &str) -> Vec<Disassembled> {
    let (mut file, mut all) = (String::new(), Vec::<Disassembled>::new());
    for line in text.lines() {
        if let Some((name, _)) = line.split_once(":     file format") {
            name.clone_into(&mut file);
        } else if let Some((_, name)) = line.strip_suffix(">:").and_then(|line| line.split_once(" <")) {
            all.push(Disassembled { name: format!("{file} {name}"), instructions: Vec::new() });
        } else if let (Some((address, instruction)), Some(function)) = (line.split_once(":\t"), all.last_mut())
            && let Ok(address) = u64::from_str_radix(address.trim(), 16)
        {
            function.instructions.push((address, instruction.trim().to_string()));
        }
    }
    all
}

/// The innermost loops: from the target of a conditional jump backwards to the jump, with no other loop inside. An unconditional one, or
/// one over a return, is the way back from code that a compiler moved out of the way.
fn innermost_loops(function: &Disassembled) -> Vec<&[(u64, String)]> {
    let jumps = |word: &str| {
        if cfg!(target_arch = "aarch64") {
            ["b.", "cbz", "cbnz", "tbz", "tbnz"].iter().any(|jump| word.starts_with(jump))
        } else {
            word.starts_with('j') && word != "jmp"
        }
    };
    // The target is the last operand, before its name in angle brackets.
    let target = |instruction: &str| {
        let (instruction, _) = instruction.split_once(" <")?;
        let mut words = instruction.split_whitespace();
        words.next().filter(|word| jumps(word))?;
        u64::from_str_radix(words.next_back()?, 16).ok()
    };
    let index = |address: u64| function.instructions.iter().position(|(other, _)| *other == address);
    let jumps = function.instructions.iter().enumerate();
    let returns = |body: &[(u64, String)]| body.iter().any(|(_, instruction)| instruction.starts_with("ret"));
    let loops: Vec<(usize, usize)> = jumps
        .filter_map(|(end, (address, instruction))| Some((index(target(instruction).filter(|to| to <= address)?)?, end)))
        .filter(|(start, end)| !returns(&function.instructions[*start..=*end]))
        .collect();
    let contains = |outer: &(usize, usize), inner: &(usize, usize)| outer != inner && outer.0 <= inner.0 && inner.1 <= outer.1;
    let innermost = loops.iter().filter(|outer| !loops.iter().any(|inner| contains(outer, inner)));
    innermost.map(|(start, end)| &function.instructions[*start..=*end]).collect()
}

/// Whether an instruction moves a vector to or from the stack. Not meant: registers `d` of aarch64, eight bytes, which are integers that the
/// compiler keeps in vector registers for want of others.
fn is_spill(instruction: &str) -> bool {
    if cfg!(target_arch = "aarch64") {
        let moves = |word: &str| instruction.strip_prefix(word).is_some_and(|operands| operands.trim_start().starts_with('q'));
        ["ldr", "str", "ldp", "stp", "ldur", "stur"].into_iter().any(moves) && instruction.contains("[sp")
    } else {
        instruction.starts_with('v') && (instruction.contains("(%rsp") || instruction.contains("(%rbp"))
    }
}

/// Whether an instruction of x86-64 moves between a general register and a vector or mask register, which takes a port of the multiply-adds.
/// Not meant: loads and stores, whose addresses are in general registers, and moves among vectors or masks.
fn is_move_between_files(instruction: &str) -> bool {
    let (word, operands) = instruction.split_once(char::is_whitespace).unwrap_or((instruction, ""));
    let moves = ["vmovd", "vmovq", "kmov", "vpbroadcast", "vpinsr", "vpextr"].iter().any(|start| word.starts_with(start));
    let is_general = |operand: &str| operand.starts_with("%r") || operand.starts_with("%e");
    // An address in parentheses may hold commas, and its registers are no operands.
    let outside = operands.split(['(', ')']).step_by(2);
    moves && outside.flat_map(|part| part.split(',')).any(|operand| is_general(operand.trim()))
}

#[test]
fn moves_between_files_are_told_from_loads_and_stores() {
    let moves = [
        "vmovq  %xmm2,%rdx",
        "vmovq  %rdx,%xmm18",
        "vmovd  %ecx,%xmm0",
        "kmovd  %eax,%k1",
        "kmovb  %k0,%ecx",
        "kmovq  %k3,%r10",
        "vpbroadcastd %edx,%zmm2",
        "vpextrq $0x1,%xmm2,%rdx",
        "vpinsrq $0x1,%r9,%xmm1,%xmm1",
    ];
    let others = [
        "kmovw  0x10(%rax,%rcx,4),%k1",
        "kmovw  (%rdi),%k1",
        "kmovw  %k1,%k2",
        "vmovq  (%rax),%xmm0",
        "vmovd  %xmm0,0x4(%rdx,%rsi,2)",
        "vmovdqu64 %zmm20,(%rsi,%rdi,1)",
        "vpbroadcastd (%rsi,%rdi,2),%zmm2",
        "vpbroadcastd %xmm3,%zmm2",
        "vfmadd231ps (%rsi),%zmm19,%zmm1",
        "mov    %rdx,%rax",
    ];
    assert!(moves.into_iter().all(is_move_between_files));
    assert!(!others.into_iter().any(is_move_between_files));
}

/// Kernels whose inner loops still have such moves. Remove an entry when its template is rewritten.
const KERNELS_WITH_MOVES: [&str; 2] = ["lean_weightgradient_f32_avx512", "lean_weightgradient_f32_avx2"];

/// Accumulators that a compiler moves between registers and the stack cost more than what they are there to save; addresses that it keeps in
/// vector and mask registers take the place of multiply-adds.
#[test]
fn inner_loops_move_nothing_through_the_stack_or_between_files_of_registers() {
    for (isa, archive) in archives() {
        let Some(text) = output_of("objdump", &["-d", "--no-show-raw-insn"], &archive) else { continue };
        let functions = functions(&text);
        let mut loops_with_multiply_adds = 0;
        for function in &functions {
            for body in innermost_loops(function) {
                let found = |is_hit: fn(&str) -> bool| {
                    body.iter().map(|(_, text)| &text[..]).filter(|text| is_hit(text)).collect::<Vec<_>>()
                };
                let moves = found(is_move_between_files);
                let is_excepted = KERNELS_WITH_MOVES.iter().any(|kernel| function.name.contains(kernel));
                assert!(moves.is_empty() || is_excepted, "{isa}: {} of {} instructions: {moves:#?}", function.name, body.len());
                let multiplies = |text: &str| ["vfmadd", "vdpbf16ps", "fmla", "bfmmla"].iter().any(|word| text.starts_with(word));
                if found(multiplies).is_empty() {
                    continue;
                }
                loops_with_multiply_adds += 1;
                let spills = found(is_spill);
                assert!(spills.is_empty(), "{isa}: {} of {} instructions: {spills:#?}", function.name, body.len());
            }
        }
        // Every size of a tile, whole and (in f32) masked, of every convolution: the text was understood.
        let least = match isa {
            Isa::Amx => 6,
            // Tiles have one to six pixels.
            Isa::NeonBf16 => 40,
            _ if isa.base() == isa => 100,
            _ => 60,
        };
        assert!(loops_with_multiply_adds >= least, "{isa}: {loops_with_multiply_adds} loops");
    }
}

/// What the instruction set of bf16 is there for, in every kernel that sums over inputs or pixels: enough for one full tile at least.
#[test]
fn kernels_of_blocks_multiply_blocks() {
    let Some((_, archive)) = archives().into_iter().find(|(isa, _)| *isa == Isa::NeonBf16) else { return };
    let Some(text) = output_of("objdump", &["-d", "--no-show-raw-insn"], &archive) else { return };
    let functions = functions(&text);
    for kernel in ["fused", "dense", "weightgradient"].map(|op| format!("lean_{op}_bf16_neonbf16_")) {
        let tiles: Vec<_> =
            functions.iter().filter(|function| function.name.contains(&kernel) && function.name.ends_with(" tile_6")).collect();
        assert_eq!(tiles.len(), if kernel.contains("fused") { 6 } else { 1 }, "{kernel}");
        for tile in tiles {
            let count = |word: &str| tile.instructions.iter().filter(|(_, text)| text.starts_with(word)).count();
            assert_eq!((count("bfmmla"), count("bfdot")), (24, 0), "{}", tile.name);
        }
    }
}

/// Instructions of a function that begin with a word.
fn count(function: &Disassembled, word: &str) -> usize {
    function.instructions.iter().filter(|(_, text)| text.starts_with(word)).count()
}

/// Kernels of the tile unit configure it, release it, and multiply four tiles of sums. A copy is whole in memory before a tile loads it,
/// and sums before a vector does: the compiler, which knows nothing of tiles, may not move either.
#[test]
fn kernels_of_the_tile_unit_use_it() {
    let Some((_, archive)) = archives().into_iter().find(|(isa, _)| *isa == Isa::Amx) else { return };
    let Some(text) = output_of("objdump", &["-d", "--no-show-raw-insn"], &archive) else { return };
    let functions = functions(&text);
    let kernels: Vec<_> = functions.iter().filter(|function| function.name.contains(" lean_")).collect();
    assert_eq!(kernels.len(), 8, "six stencils, dense convolutions, the gradient of a matrix");
    for kernel in kernels {
        assert_eq!((count(kernel, "ldtilecfg"), count(kernel, "tilerelease")), (1, 1), "{}", kernel.name);
        // Of a first step and of a later one at least; a compiler may repeat what is common to both.
        let [dots, loads, stores] = ["tdpbf16ps", "tileload", "tilestore"].map(|word| count(kernel, word));
        assert!(dots >= 8 && dots % 2 == 0, "{}: {dots} products", kernel.name);
        assert!(loads >= 8 + 4 && stores >= 4 && stores % 2 == 0, "{}: {loads} loads, {stores} stores", kernel.name);
        let position = |word: &str| kernel.instructions.iter().position(|(_, text)| text.starts_with(word));
        assert!(position("ldtilecfg") < position("tdpbf16ps"), "{}: tiles are configured first", kernel.name);
    }
}

/// Turns of the tile unit whose columns are unrolled: every operation is there once, and nothing goes through the stack or from general
/// registers to those of vectors and masks, on whose ports everything depends.
#[test]
fn unrolled_turns_of_the_tile_unit_hold_what_they_need_in_registers() {
    let Some((_, archive)) = archives().into_iter().find(|(isa, _)| *isa == Isa::Amx) else { return };
    let Some(text) = output_of("objdump", &["-d", "--no-show-raw-insn"], &archive) else { return };
    let functions = functions(&text);
    let turns: Vec<_> = functions.iter().filter(|function| function.name.contains(" turn_")).collect();
    // Other compilers may make constants anew.
    let is_gcc = leanresnet::build_info::c_compiler().is_some_and(|compiler| !compiler.contains("clang"));
    assert_eq!(turns.len(), 3 * 5 * 2, "three stencils, five shapes, with and without a residual");
    for turn in turns {
        let (_, shape) = turn.name.split_once(" turn_").expect("its name");
        let numbers: Vec<usize> = shape.split(['x', '_']).map_while(|number| number.parse().ok()).collect();
        let [columns, steps] = numbers[..] else { panic!("{}", turn.name) };
        let operations = ["tdpbf16ps", "tileload", "tilestore"].map(|word| count(turn, word));
        assert_eq!(operations, [4 * steps, 4 * steps + 4, 4], "{}", turn.name);
        assert_eq!(count(turn, "vcvtne2ps2bf16"), 2 * columns, "{}: two rows", turn.name);
        let is_move =
            |text: &str| ["kmov", "vmovd ", "vmovq ", "vpbroadcast"].iter().any(|word| text.starts_with(word)) || is_spill(text);
        let moves: Vec<&str> = turn.instructions.iter().map(|(_, text)| &text[..]).filter(|text| is_move(text)).collect();
        assert!(moves.is_empty() || !is_gcc, "{}: {moves:#?}", turn.name);
    }
}
