#define BOOST_TEST_MODULE fabric
#include <boost/test/unit_test.hpp>
