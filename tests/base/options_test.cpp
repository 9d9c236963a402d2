#include "switchyard/base/json.h"
#include "switchyard/base/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>


#include "switchyard/base/registry.h"
#include "tests/support.h"

namespace switchyard {
namespace {

using ::testing::ElementsAre;
using testing::expect_error;
using ::testing::HasSubstr;
using ::testing::Not;

enum class Colour { red, green };

struct Inner {
  int64_t depth = 3;
  std::string label = "none";
  static void describe(Fields<Inner>& f) {
    f.title("inner", "What is inside.");
    f("depth", &Inner::depth, "how deep").range(1, 8).unit("layers");
    f("label", &Inner::label, "what it is called");
  }
};

struct Base {
  double rate = 0.5;
  static void describe(Fields<Base>& f) { f("rate", &Base::rate, "how fast").range(0, 1); }
};

struct Outer : Base {
  bool on = true;
  int64_t count = 7;
  double limit = std::numeric_limits<double>::infinity();
  std::string name = "x";
  std::string form = "round";
  Colour colour = Colour::green;
  std::vector<int64_t> list{1, 2};
  std::vector<Colour> colours;
  std::optional<int64_t> maybe;
  Inner inner{.depth = 5};
  std::vector<Inner> inners;
  std::map<std::string, double> weights;
  static void describe(Fields<Outer>& f) {
    f.title("outer", "Everything an option can be.");
    f.inherit<Base>();
    f("on", &Outer::on, "whether");
    f("count", &Outer::count, "how many").range(0);
    f("limit", &Outer::limit, "at most");
    f("name", &Outer::name, "its name");
    f("form", &Outer::form, "its form").choices({"round", "square"});
    f("colour", &Outer::colour, "its colour").choices({"red", "green"});
    f("list", &Outer::list, "numbers | of lines").range(0, 9);
    f("colours", &Outer::colours, "several").choices({"red", "green"});
    f("maybe", &Outer::maybe, "perhaps");
    f("inner", &Outer::inner, "one inside");
    f("inners", &Outer::inners, "several inside");
    f("weights", &Outer::weights, "by name");
  }
};

struct Needy {
  std::string path;
  static void describe(Fields<Needy>& f) { f("path", &Needy::path, "where it lies").required(); }
};

struct Doubled {
  int64_t a = 0;
  static void describe(Fields<Doubled>& f) {
    f("a", &Doubled::a, "one");
    f("a", &Doubled::a, "again");
  }
};

template <typename T = Outer>
T read(const std::string& yaml) {
  return read_options<T>(parse_yaml(yaml, "recipe.yaml"));
}
template <typename T = Outer>
Error refused(const std::string& yaml) {
  return expect_error([&] { (void)read<T>(yaml); });
}

TEST(Options, DefaultsStandWhereNothingIsSaid) {
  const Outer o = read("");
  EXPECT_EQ(o.count, 7);
  EXPECT_EQ(o.inner.depth, 5);
  EXPECT_THAT(o.list, ElementsAre(1, 2));
  EXPECT_EQ(read("inner: {label: y}").inner.depth, 5);  // on top of the owner's default
}

TEST(Options, ReadsEveryType) {
  const Outer o = read(
      "rate: 0.25\non: false\ncount: 12\nlimit: .inf\nname: hello\nform: square\ncolour: red\nlist: [3, 4]\ncolours: "
      "[red, green]\n"
      "maybe: 5\ninner: {depth: 2}\ninners: [{depth: 1}, {label: z}]\nweights: {a: 1, b: 2.5e-1}\n");
  EXPECT_EQ(o.rate, 0.25);
  EXPECT_FALSE(o.on);
  EXPECT_EQ(o.count, 12);
  EXPECT_TRUE(std::isinf(o.limit));
  EXPECT_EQ(o.form, "square");
  EXPECT_EQ(o.colour, Colour::red);
  EXPECT_THAT(o.list, ElementsAre(3, 4));
  EXPECT_THAT(o.colours, ElementsAre(Colour::red, Colour::green));
  EXPECT_EQ(o.maybe, 5);
  EXPECT_EQ(o.inner.depth, 2);
  ASSERT_EQ(o.inners.size(), 2u);
  EXPECT_EQ(o.inners[1].depth, 3);
  EXPECT_EQ(o.inners[1].label, "z");
  EXPECT_EQ(o.weights.at("b"), 0.25);
  EXPECT_EQ(read("maybe: ~").maybe, std::nullopt);
  EXPECT_THAT(read("list: 4").list, ElementsAre(4));
  EXPECT_TRUE(read("list: []").list.empty());
  EXPECT_EQ(read("name: 5").name, "5");  // a text may look like a number
  EXPECT_EQ(read("limit: -5").limit, -5);
}

TEST(Options, UnknownKeysNameTheNearestAndTheLine) {
  const Error error = refused("on: true\ncuont: 3\n");
  EXPECT_EQ(error.code(), "options.unknown_key");
  EXPECT_EQ(error.message(), "recipe.yaml:2: outer has no option 'cuont'; did you mean 'count'?");
  EXPECT_THAT(refused("inner:\n  dpeth: 3\n").message(),
              HasSubstr("recipe.yaml:2: inner has no option 'dpeth'; did you mean 'depth'?"));
  EXPECT_THAT(refused("zzzzzz: 3").message(), HasSubstr("its options: rate, on, count"));
  EXPECT_THAT(refused("inners: [{depth: 1}, {dpth: 1}]").message(), HasSubstr("did you mean 'depth'?"));
}

TEST(Options, WrongTypesNameWhatStoodThere) {
  EXPECT_EQ(refused("count: ten").message(), "recipe.yaml:1: count expects a whole number, found 'ten'");
  for (const char* yaml : {"count: 1.5",
                           "count: \"5\"",
                           "count: [1]",
                           "count: {a: 1}",
                           "count: ~",
                           "count: 0x10",
                           "count: 99999999999999999999",
                           "count: 1 2",
                           "on: yes",
                           "on: 1",
                           "on: \"true\"",
                           "rate: half",
                           "rate: .nan",
                           "rate: nan",
                           "rate: 1e999",
                           "name: [a]",
                           "name: ~",
                           "inner: 5",
                           "inners: [5]",
                           "weights: 5",
                           "weights: {a: b}",
                           "list: {a: 1}",
                           "maybe: x"}) {
    const Error error = refused(yaml);
    EXPECT_EQ(error.code(), "options.type") << yaml;
    EXPECT_THAT(error.message(), HasSubstr("recipe.yaml:1: ")) << yaml;
  }
}

TEST(Options, RangesNameWhatIsAllowed) {
  EXPECT_EQ(refused("inner: {depth: 9}").message(), "recipe.yaml:1: depth is 9; allowed is 1 to 8 layers");
  for (const char* yaml :
       {"inner: {depth: 0}", "count: -1", "rate: 1.0001", "rate: -0.1", "rate: .inf", "list: [1, 10]"})
    EXPECT_EQ(refused(yaml).code(), "options.range") << yaml;
  EXPECT_EQ(read("inner: {depth: 8}").inner.depth, 8);
}

TEST(Options, ChoicesNameTheNearest) {
  const Error error = refused("colour: gren");
  EXPECT_EQ(error.code(), "options.choice");
  EXPECT_EQ(error.message(), "recipe.yaml:1: colour is 'gren'; did you mean 'green'? allowed: red, green");
  EXPECT_EQ(refused("form: oval").code(), "options.choice");
  EXPECT_EQ(refused("colours: [red, blue]").code(), "options.choice");
  EXPECT_EQ(refused("colour: [red]").code(), "options.type");
}

TEST(Options, MissingOnesAreNamed) {
  const Error error = refused<Needy>("{}");
  EXPECT_EQ(error.code(), "options.missing");
  EXPECT_THAT(error.message(), HasSubstr("needs 'path': where it lies"));
}

TEST(Options, OverridesAreNamedInErrors) {
  Node root = parse_yaml("count: 1", "recipe.yaml");
  apply_override(root, "inner.depth=20");
  const Error error = expect_error([&] { (void)read_options<Outer>(root); });
  EXPECT_EQ(error.message(), "override 'inner.depth=20': depth is 20; allowed is 1 to 8 layers");
}

TEST(Options, WritingAndReadingGivesTheSame) {
  Outer o;
  o.on = false;
  o.limit = 0.1;
  o.rate = 1.0 / 3;
  o.name = "12";
  o.form = "square";
  o.colours = {Colour::red};
  o.maybe = -4;
  o.inners = {{.depth = 1, .label = "true"}, {.depth = 2, .label = ""}};
  o.weights = {{"a b", 1e-300}, {"~", -0.0}};
  const Node written = write_options(o);
  for (const std::string& text : {to_yaml(written), to_json(written)}) {
    const Outer back = read_options<Outer>(parse_yaml(text, "written"));
    EXPECT_EQ(to_json(write_options(back)), to_json(written)) << text;
    EXPECT_EQ(back.rate, o.rate);
    EXPECT_EQ(back.name, "12");
    EXPECT_EQ(back.inners[0].label, "true");
    EXPECT_EQ(back.weights.at("a b"), 1e-300);
  }
  o.limit = std::numeric_limits<double>::infinity();
  EXPECT_TRUE(std::isinf(read_options<Outer>(parse_json(to_json(write_options(o)), "x")).limit));
}

TEST(Options, DescriptionsThatContradictThemselvesAreRefused) {
  EXPECT_EQ(expect_error([] { (void)description_of<Doubled>(); }).code(), "options.description");
}

TEST(Options, HelpTellsNameTypeRangeAndDefault) {
  const std::string help = help_text(described_defaults<Outer>());
  EXPECT_THAT(help, HasSubstr("count"));
  EXPECT_THAT(help, HasSubstr("how many (whole number; at least 0; default 7)"));
  EXPECT_THAT(help, HasSubstr("how deep (whole number; layers; 1 to 8; default 5)"));  // the owner's default
  EXPECT_THAT(help, HasSubstr("its colour (red, green; default green)"));
  EXPECT_THAT(help_text(described_defaults<Needy>()), HasSubstr("required"));
}

TEST(Options, TheReferencePageHasATableAGroup) {
  const std::string page = reference_markdown(described_defaults<Outer>());
  EXPECT_THAT(page, HasSubstr("## outer"));
  EXPECT_THAT(page, HasSubstr("### `inner`"));
  EXPECT_THAT(page, HasSubstr("| `count` | whole number, at least 0 | `7` | how many |"));
  EXPECT_THAT(page, HasSubstr("numbers \\| of lines"));
}

TEST(Options, TheSchemaSaysTheSame) {
  const auto schema = json_from(json_schema(described_defaults<Outer>(), "Outer"));
  EXPECT_EQ(schema["properties"]["count"]["type"], "integer");
  EXPECT_EQ(schema["properties"]["count"]["minimum"], 0);
  EXPECT_EQ(schema["properties"]["count"]["default"], 7);
  EXPECT_EQ(schema["properties"]["colour"]["enum"], (nlohmann::json{"red", "green"}));
  EXPECT_EQ(schema["additionalProperties"], false);
  EXPECT_EQ(schema["$defs"]["inner"]["properties"]["depth"]["maximum"], 8);
  const auto needy = json_from(json_schema(described_defaults<Needy>(), "Needy"));
  EXPECT_EQ(needy["required"], nlohmann::json{"path"});
}

TEST(Options, NearestFindsTyposAndNothingElse) {
  const std::vector<std::string> names{"steps", "batch", "evaluate_every", "learning_rate"};
  EXPECT_EQ(nearest("step", names), "steps");
  EXPECT_EQ(nearest("bacth", names), "batch");
  EXPECT_EQ(nearest("evaluate-every", names), "evaluate_every");
  EXPECT_EQ(nearest("EVALUATE_EVERY", names), "evaluate_every");
  EXPECT_EQ(nearest("learn", names), "learning_rate");
  EXPECT_EQ(nearest("qqq", names), "");
  EXPECT_EQ(nearest("", names), "");
  EXPECT_EQ(nearest("step", {}), "");
  EXPECT_EQ(nearest(std::string(100000, 'a'), names), "");
}

// --- the registry ---------------------------------------------------------------------------

struct Shape {
  static constexpr const char* kInterface = "shape";
  virtual ~Shape() = default;
  virtual double area() const = 0;
};
struct SquareOptions {
  double side = 2;
  static void describe(Fields<SquareOptions>& f) { f("side", &SquareOptions::side, "its side").range(0); }
};
struct Square : Shape {
  explicit Square(SquareOptions o) : options(o) {}
  double area() const override { return options.side * options.side; }
  SquareOptions options;
};
struct Point : Shape {
  double area() const override { return 0; }
};
struct Solid {
  static constexpr const char* kInterface = "solid";
  virtual ~Solid() = default;
};
struct Cube : Solid {
  explicit Cube(SquareOptions) {}
};

Registry shapes() {
  Registry registry;
  registry.add<Shape, Square, SquareOptions>({.slug = "square", .name = "Square"});
  registry.add<Shape, Point, NoOptions>({.slug = "point", .name = "Point"});
  registry.add<Solid, Cube, SquareOptions>({.slug = "square", .name = "Square"});  // one card, two interfaces
  registry.add_card({.slug = "a-preset", .name = "Preset"});
  return registry;
}

TEST(Registry, MakesMethodsByTheirSlug) {
  const Registry registry = shapes();
  EXPECT_EQ(registry.make<Shape>("square", parse_yaml("side: 3", "x"))->area(), 9);
  EXPECT_EQ(registry.make<Shape>("square", Node())->area(), 4);
  EXPECT_EQ(registry.make<Shape>("point", Node())->area(), 0);
  EXPECT_NE(registry.make<Solid>("square", Node()), nullptr);
  EXPECT_THAT(registry.interfaces(), ElementsAre("shape", "solid"));
  EXPECT_EQ(registry.cards().size(), 3u);
  EXPECT_EQ(registry.of("shape").size(), 2u);
  EXPECT_TRUE(registry.of("nothing").empty());
  EXPECT_EQ(registry.card("a-preset")->name, "Preset");
  EXPECT_EQ(registry.card("absent"), nullptr);
}

TEST(Registry, RefusesWhatItDoesNotKnow) {
  const Registry registry = shapes();
  const Error typo = expect_error([&] { (void)registry.find("shape", "sqare"); });
  EXPECT_EQ(typo.code(), "registry.unknown");
  EXPECT_THAT(typo.message(), HasSubstr("did you mean 'square'?"));
  EXPECT_THAT(expect_error([&] { (void)registry.find("solid", "point"); }).message(),
              HasSubstr("'point' (Point) is no solid"));
  EXPECT_EQ(expect_error([&] { (void)registry.make<Shape>("square", parse_yaml("sied: 3", "x")); }).code(),
            "options.unknown_key");
  EXPECT_EQ(expect_error([&] { (void)registry.make<Shape>("point", parse_yaml("side: 3", "x")); }).code(),
            "options.unknown_key");
}

TEST(Registry, RefusesDoublesAndBadSlugs) {
  Registry registry = shapes();
  EXPECT_EQ(expect_error([&] { registry.add<Shape, Point, NoOptions>({.slug = "point", .name = "Point"}); }).code(),
            "registry.duplicate");
  EXPECT_EQ(expect_error([&] { registry.add<Solid, Cube, SquareOptions>({.slug = "point", .name = "Other"}); }).code(),
            "registry.duplicate");
  EXPECT_EQ(expect_error([&] { registry.add_card({.slug = "point", .name = "Point"}); }).code(), "registry.duplicate");
  for (const char* slug : {"", "Upper", "under_score", "spa ce", "dot.ted"})
    EXPECT_EQ(expect_error([&] { registry.add_card({.slug = slug}); }).code(), "registry.slug") << slug;
}

TEST(Registry, HoldsTheLibrarysMethodsInspiteOfStaticLinking) {
  EXPECT_NE(Registry::instance().card("switch-top1"), nullptr);
  EXPECT_NE(Registry::instance().card("sparse-topk"), nullptr);
  EXPECT_FALSE(Registry::instance().of("router").empty());
}

// A method within options, over the real registry.
struct Uses {
  Choice<Shape> shape;  // nothing of this interface is in the process-wide registry
  static void describe(Fields<Uses>& f) { f("shape", &Uses::shape, "its shape"); }
};

TEST(Registry, AChoiceIsCheckedWhenRead) {
  EXPECT_FALSE(read_options<Uses>(parse_yaml("shape: none", "x")).shape);
  EXPECT_EQ(to_json(write_options(Uses{}), -1), R"({"shape":"none"})");
  const Error unknown = refused<Uses>("\nshape: sqare");
  EXPECT_EQ(unknown.code(), "registry.unknown");
  EXPECT_THAT(unknown.message(), HasSubstr("recipe.yaml:2"));
  EXPECT_EQ(refused<Uses>("shape: {side: 3}").code(), "options.method");
  EXPECT_EQ(refused<Uses>("shape: [a]").code(), "options.type");
  EXPECT_EQ(refused<Uses>("shape: {type: none, side: 3}").code(), "options.method");
}

}  // namespace
}  // namespace switchyard
