#include "program/verb.h"

int main(int argc, char** argv) { return switchyard::program::run(switchyard::program::verbs(), argc, argv); }
