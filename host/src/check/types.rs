//! Values whose type is known from where they come from: their properties and methods exist, or it is told.
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use gpuhost_stdlib::core::options::closest;
use gpuhost_stdlib::site::Finding;
use gpuhost_stdlib::site::schema::SECTIONS;
use rhai::{ASTNode, Expr, FnCallExpr, Position};

use super::binders::Binder;
use super::literals::closure;
use super::{Scene, module_path};
use crate::reference::{Form, Function};

/// What is known of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Type {
    /// A type by the reference's name; `[Vm]` is a list of VMs.
    Named(String),
    /// A section of the site file, by its path.
    Section(String),
}

impl Type {
    fn is_list(&self) -> bool {
        matches!(self, Type::Named(word) if word.starts_with('['))
    }

    /// What a list is made of.
    fn element(&self) -> Option<Type> {
        let Type::Named(word) = self else { return None };
        word.strip_prefix('[')?.strip_suffix(']').and_then(closed)
    }
}

/// Types of the language itself: what they have is not listed in full.
const OPEN: &[&str] = &["Map", "array", "string", "int", "float", "bool", "char", "Fn", "any", ""];

/// Checks properties and methods of values whose type is known.
pub fn check(scene: &Scene<'_>, out: &mut Vec<Finding>) {
    let types = Types::of(scene);
    scene.ast.walk(&mut |path: &[ASTNode]| {
        if let Some(ASTNode::Expr(Expr::Dot(x, ..))) = path.last()
            && let Some(ty) = types.of_expr(&x.lhs)
        {
            types.follow(&ty, &x.rhs, &mut |pos, text, hint| out.push(scene.at(pos, text, hint)));
        }
        true
    });
}

/// The types of a file's variables.
struct Types<'a> {
    scene: &'a Scene<'a>,
    known: BTreeMap<String, Type>,
    /// What closures are called with, by the name of their function; `None` when it is not always the same.
    called: RefCell<BTreeMap<String, Option<Type>>>,
}

/// Takes a finding: where, what, what to do.
type Tell<'t> = &'t mut dyn FnMut(Position, String, Option<String>);

/// Methods of lists that call a closure with one element after the other.
const EACH: &[&str] = &["map", "filter", "for_each", "all", "some", "find", "find_map", "drain", "retain", "index_of"];

impl<'a> Types<'a> {
    fn of(scene: &'a Scene<'a>) -> Self {
        let mut types = Types { scene, known: BTreeMap::new(), called: RefCell::default() };
        let names = scene.bound();
        // What a name holds may follow from another one's type.
        for _ in 0..4 {
            types.called.borrow_mut().clear();
            scene.ast.walk(&mut |path: &[ASTNode]| {
                if let Some(ASTNode::Expr(e @ (Expr::Dot(..) | Expr::FnCall(..)))) = path.last() {
                    types.of_expr(e);
                }
                true
            });
            let found: BTreeMap<String, Type> =
                names.iter().filter_map(|(name, list)| Some((name.clone(), types.same(list)?))).collect();
            if found == types.known {
                break;
            }
            types.known = found;
        }
        types
    }

    /// The type that a name has wherever it is bound.
    fn same(&self, list: &[Binder]) -> Option<Type> {
        let mut all = list.iter().map(|b| match b {
            Binder::Value(e) => self.of_expr(e),
            Binder::Element(e) => self.of_expr(e)?.element(),
            Binder::Parameter(closure) => self.called.borrow().get(closure)?.clone(),
            Binder::Anything => None,
        });
        let first = all.next()??;
        all.all(|t| t.as_ref() == Some(&first)).then_some(first)
    }

    /// Notes that closures among `args` are called with elements of a list of type `ty`.
    fn called_with(&self, ty: &Type, args: &[Expr]) {
        let Some(element) = ty.element() else { return };
        for (name, _) in args.iter().filter_map(closure) {
            let mut called = self.called.borrow_mut();
            let known = called.entry(name).or_insert_with(|| Some(element.clone()));
            if known.as_ref() != Some(&element) {
                *known = None;
            }
        }
    }

    fn of_expr(&self, e: &Expr) -> Option<Type> {
        match e {
            Expr::Variable(v, ..) if v.2.is_empty() => self.known.get(v.1.as_str()).cloned(),
            Expr::FnCall(c, _) => self.of_call(c),
            Expr::Dot(x, ..) => self.follow(&self.of_expr(&x.lhs)?, &x.rhs, &mut |_, _, _| ()),
            Expr::Index(x, ..) => self.of_expr(&x.lhs)?.element(),
            _ => None,
        }
    }

    fn of_call(&self, c: &FnCallExpr) -> Option<Type> {
        let module = module_path(&c.namespace);
        if module.is_empty()
            && c.name == "parallel"
            && let Some(list) = self.of_expr(&c.args[0])
        {
            self.called_with(&list, &c.args[1..]);
        }
        let own = module.is_empty() && self.scene.functions.iter().any(|f| f.name == c.name);
        if own || self.scene.imports.contains_key(&module) || self.scene.variables.contains(c.name.as_str()) {
            return None;
        }
        let here = |f: &&Function| if module.is_empty() { f.global } else { f.module == module };
        let found = self.scene.reference.named(&c.name).filter(here).filter(|f| f.params.len() == c.args.len());
        closed(result(found)?)
    }

    /// Goes along `.a.b(…).c` from a value of type `ty`; gives the type at the end, when it is known.
    fn follow(&self, ty: &Type, rhs: &Expr, tell: Tell<'_>) -> Option<Type> {
        match rhs {
            Expr::Property(p, pos) => self.property(ty, &p.2, *pos, tell),
            Expr::MethodCall(c, pos) => self.method(ty, c, *pos, tell),
            Expr::Dot(x, ..) => {
                let next = self.follow(ty, &x.lhs, tell)?;
                self.follow(&next, &x.rhs, tell)
            }
            Expr::Index(x, ..) => self.follow(ty, &x.lhs, tell)?.element(),
            _ => None,
        }
    }

    fn property(&self, ty: &Type, name: &str, pos: Position, tell: Tell<'_>) -> Option<Type> {
        let Type::Named(word) = ty else { return section_key(ty, name, pos, tell) };
        if ty.is_list() {
            return None;
        }
        let list: Vec<&Function> = self.scene.reference.members(word).filter(|f| f.form == Form::Property).collect();
        let found: Vec<&Function> = list.iter().copied().filter(|f| f.name == name).collect();
        if found.is_empty() && !self.indexed(word) {
            let hint = if self.scene.reference.members(word).any(|f| f.form == Form::Method && f.name == name) {
                format!("it is a method: `{name}(…)`")
            } else {
                near(name, list.iter().map(|f| f.name.as_str()), "it has")
            };
            tell(pos, format!("`{word}` has no property `{name}`"), Some(hint).filter(|h| !h.is_empty()));
        }
        let next = result(found.into_iter())?;
        if word == "Site" && next == "Map" { Some(Type::Section(name.to_owned())) } else { closed(next) }
    }

    fn method(&self, ty: &Type, c: &FnCallExpr, pos: Position, tell: Tell<'_>) -> Option<Type> {
        let Type::Named(word) = ty else { return None };
        let name = c.name.as_str();
        if ty.is_list() {
            if EACH.contains(&name) {
                self.called_with(ty, &c.args);
            }
            // What picks elements gives a list of the same.
            return ["filter", "extract", "sorted"].contains(&name).then(|| ty.clone());
        }
        let own = self.scene.functions.iter().any(|f| f.name == name);
        if own || self.scene.variables.contains(name) || self.scene.keys.contains(name) {
            return None;
        }
        let callable = |f: &&Function| f.global && matches!(f.form, Form::Function | Form::Method);
        let takes = |f: &&Function| f.params.first().is_some_and(|p| p.ty == *word || p.ty == "any");
        let named: Vec<&Function> = self.scene.reference.named(name).filter(callable).collect();
        let fits = |f: &&Function| f.params.len() == c.args.len() + 1;
        let of_type: Vec<&Function> = named.iter().copied().filter(takes).collect();
        // What no type has, or none with so many arguments, is told where all calls are looked at.
        if named.iter().any(&fits) && !of_type.iter().any(&fits) {
            let (text, hint) = if let Some(f) = of_type.first() {
                let text = format!("`{name}` of a `{word}` takes other arguments, found {}", c.args.len());
                (text, format!("it is called as `{}`", f.signature()))
            } else {
                let methods = self.scene.reference.members(word).filter(|f| f.form == Form::Method);
                (format!("`{word}` has no method `{name}`"), near(name, methods.map(|f| f.name.as_str()), "it has"))
            };
            tell(pos, text, Some(hint).filter(|h| !h.is_empty()));
            return None;
        }
        closed(result(of_type.into_iter().filter(fits))?)
    }

    /// Whether values of that type answer to any name.
    fn indexed(&self, word: &str) -> bool {
        let list = &self.scene.reference.functions;
        list.iter().any(|f| f.name.starts_with("index$get") && f.params.first().is_some_and(|p| p.ty == word))
    }
}

/// A type of which all that a value has is listed.
fn closed(word: &str) -> Option<Type> {
    (!OPEN.contains(&word)).then(|| Type::Named(word.to_owned()))
}

/// The type that all of them give back.
fn result<'f>(mut found: impl Iterator<Item = &'f Function>) -> Option<&'f str> {
    let first = found.next()?;
    found.all(|f| f.returns == first.returns).then_some(first.returns.as_str())
}

/// A suggestion: the nearest name, else all of them.
fn near<'n>(name: &str, all: impl Iterator<Item = &'n str>, lead: &str) -> String {
    let all: BTreeSet<&str> = all.filter(|n| !n.starts_with("to_")).collect();
    match closest(name, all.iter().copied()) {
        Some(k) => format!("did you mean `{k}`?"),
        None if all.is_empty() => String::new(),
        None => format!("{lead}: {}", all.into_iter().collect::<Vec<_>>().join(", ")),
    }
}

/// A key of a section of the site file; below `platform` are sections again.
fn section_key(ty: &Type, name: &str, pos: Position, tell: Tell<'_>) -> Option<Type> {
    let Type::Section(path) = ty else { return None };
    let inner = format!("{path}.{name}");
    if SECTIONS.iter().any(|s| s.path == inner) {
        return Some(Type::Section(inner));
    }
    let below = format!("{path}.");
    let own = SECTIONS.iter().filter(|s| s.path == *path).flat_map(|s| s.fields.iter().map(|f| f.name));
    let parts = SECTIONS.iter().filter_map(|s| s.path.strip_prefix(&below));
    let all: Vec<&str> = own.chain(parts).collect();
    if !all.is_empty() && !all.contains(&name) {
        let hint = near(name, all.into_iter(), "its keys");
        tell(pos, format!("section `[{path}]` of the site file has no `{name}`"), Some(hint));
    }
    None
}
